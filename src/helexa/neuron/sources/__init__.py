"""Where the files of a model come from: the package, this machine's disks, hubs.

``Sources`` takes a model's id apart and asks the source behind it. *Describing* a model finds out
which files it has and which of them are here; *fetching* brings the rest. A source says nothing
about what is in the files: that is read by ``models``. Nothing here loads a model.
"""
