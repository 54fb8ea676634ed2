"""The workspace and the report of a W&B project, as code.

`panels` lists what is shown, section by section; `charts` are the two kinds of chart that W&B does not bring along;
`definition` makes both pages of them, of which `figure` draws the layout; `publish` creates or updates them. Panels
refer to what runs log: keys of metrics.jsonl, results and facts under the names that `certtrain.tracking.facts` gives
them, and the tables of `certtrain.tracking.results`.
"""
