"""How much of a model quantizing loses: text cut to windows."""
