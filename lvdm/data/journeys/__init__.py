"""Journeys: a small procedural world in which there is something to keep, and the truth about every frame of it.

`scene` says what can be, `captions` how it is said, `random_scenes` draws some; `subjects`, `scenery` and `places` hold
the shapes, `drawing` the pen, `render` the frames; `clips` is the training data, `templates` what the reader compares.
"""
