"""One model over ten medical modalities and eleven tasks, trained and honestly measured."""
