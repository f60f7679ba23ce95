"""Connect sessions as they are stored: links, and those who follow them."""
