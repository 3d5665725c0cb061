"""A local server that speaks the Fireworks batch REST API, with honest answers behind it and faults on request.

It is a process of its own with a durable store: a job outlives a killed client and the emulator's
own restart. It knows no gold answers: it never opens a question source.
"""
