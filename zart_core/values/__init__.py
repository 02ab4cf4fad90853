"""Values of declared types as JSON data, and back. `codec.py` is the face."""
