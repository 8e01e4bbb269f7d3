"""The kinds of model the kit trains, behind one interface; which one a model is, the loader decides once."""
