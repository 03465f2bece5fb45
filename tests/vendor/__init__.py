"""Folder to put on sys.path (or PYTHONPATH): `import tensorrt` then finds the double."""
