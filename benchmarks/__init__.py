"""What is timed, with one command each."""
