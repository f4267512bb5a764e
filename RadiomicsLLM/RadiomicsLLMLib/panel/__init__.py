"""What every section of the panel is made of: widgets, choices, and work in the background."""
