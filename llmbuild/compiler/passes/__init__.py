"""Our own passes over the exported module, one a file; `llmbuild.compiler.pipeline` puts them in order."""
