"""An HTTP server that answers as OpenAI's does, on models that `llmbuild.load` loads: used by `llmbuild serve`."""
