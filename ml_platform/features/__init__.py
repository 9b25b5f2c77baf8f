"""Features: declared once, computed per day, joined as of the event, and transformed alike offline and online."""
