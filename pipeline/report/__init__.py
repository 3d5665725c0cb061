"""The report of a trial: read the artifacts, say what they say, draw it, write it as Markdown and as HTML.

Data flow: `model` reads, `words` judges, `sections` and `figures` compose a document of `blocks`,
`markdown` and `html` write it. Both forms come from the same blocks, so they cannot disagree.
"""
