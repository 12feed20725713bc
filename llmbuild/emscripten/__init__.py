"""Emscripten: finding it, and TVM's runtime for the browser compiled with it."""
