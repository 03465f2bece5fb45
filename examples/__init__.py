"""Programs to copy: each draws with `face_diffuser` as an application would."""
