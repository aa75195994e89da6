"""What a training leaves for people: how it went and what it got right and wrong, as pictures and one page."""
