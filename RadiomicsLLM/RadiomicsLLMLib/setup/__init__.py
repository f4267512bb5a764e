"""Setting up the backend's environment, and the doctor."""
