"""The shipped sub-word vocabulary (a JSON file) and the command that trains one."""
