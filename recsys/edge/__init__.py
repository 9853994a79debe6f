"""A trained model on a device: a folder that ONNX Runtime recommends from, without torch and without a server.

graphs      how an ONNX graph is written, and the numbers in it rounded to 8 bits
forms       each model as such a graph, from a user's history to scores
folder      the files of an exported model, their manifest, and what of a stranger's folder is believed
exporting   from the directory of a run to that folder
on_device   the scores, asked on the device
"""
