"""What has been trained already, as several commands are pointed at it: checkpoints, ONNX files, finished runs.

`target` is what `certify` takes, `measured` what `landscape` and `analyze` take, whose results `publish` sends to where
those of the run are. Imports `job`, for its certification and views, and what is below it.
"""
