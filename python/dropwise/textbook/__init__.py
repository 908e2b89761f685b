"""The names of three teaching texts over this package: change one import, keep the rest.

========  ==============================================
`dlfs`    *Deep Learning from Scratch*, ``common/layers.py``
`nnfs`    *Neural Networks from Scratch in Python*
`cs231n`  the course's assignments (`cs231n_2017`: the editions of 2016 and 2017)
========  ==============================================

Only names and conventions live here; ``docs/textbooks.md`` says for each text what stays and what
differs.
"""
