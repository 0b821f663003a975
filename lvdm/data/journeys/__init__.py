"""Journeys: a procedural data set of travellers whose look must stay the same, with ground truth for every frame.

scene           the words and the look of a journey, and how they change with time
captions        the grammar: words to a caption and back
random_scenes   scenes drawn at random, and the splits into training and held-out words
drawing         anti-aliased polygons
subjects        the five travellers
scenery         the things along the way
places          the five places and three times of day
render          frames and masks of a scene
clips           the training data set
templates       the pictures that lvdm.data.journey_reader compares frames with
"""
