"""Questions of the shapes of VNN-COMP's, asked as that competition asks them: `python -m benchmarks.vnncomp`.

The competition's own files are not needed: `recipes` has networks of the same shapes, `workshop` trains them and draws
properties of images held out, `controllers` has small networks of five inputs and the properties of ACAS Xu. `sets`
names what belongs together, `contest` writes ONNX and VNN-LIB files, calls `python -m certtrain vnncomp` for each, and
audits the answers; `__main__` is the command.
"""
