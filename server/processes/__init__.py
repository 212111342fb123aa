"""`trivium serve --workers N`: an owner, which has everything, and relays, which only answer."""
