"""The parts that decoders are composed of, one a file.  Everything here imports TVM."""
