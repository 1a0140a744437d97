"""File formats at the border: pictures, label files, archives. Pure functions over files."""
