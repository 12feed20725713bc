"""Actions, the content-addressed store, traces, locks and the scheduler."""
