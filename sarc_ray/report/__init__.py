"""Draw a finished run: figures as SVG with their numbers as CSV, and one HTML page that needs no network."""
