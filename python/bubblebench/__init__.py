"""bubblebench in Python: the standard library is all that is needed.

``bubblebench.cost_model`` answers as ``bubblebench predict`` does. ``bubblebench.gate`` opens and closes the times in which
a small model may work beside a training job.
"""

__version__ = "0.1.0"
