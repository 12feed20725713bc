"""The compiler on top of TVM: export, passes, kernels and schedules, library metadata."""
