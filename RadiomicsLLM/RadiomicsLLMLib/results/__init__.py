"""What was classified: shown, kept in the scene, and exported."""
