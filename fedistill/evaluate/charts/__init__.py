"""Geometry of the report's charts; the templates draw what these functions place.

Plots are placed in pixels, those with names beside them once for wide and once for narrow screens,
so that text keeps its size. Bars are percentages of whatever width they get.
"""
