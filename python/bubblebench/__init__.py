"""bubblebench's files, read in Python: the standard library is all that is needed.

``bubblebench.cost_model`` answers as ``bubblebench predict`` does.
"""

__version__ = "0.1.0"
