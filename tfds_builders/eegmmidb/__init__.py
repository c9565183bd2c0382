"""EEG Motor Movement/Imagery Dataset (PhysioNet eegmmidb 1.0.0)."""
