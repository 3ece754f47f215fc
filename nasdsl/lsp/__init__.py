"""The language server: what the compiler knows of a text, for editors. One file a feature; ``server`` ties them together.

It speaks the Language Server Protocol through pygls (extra ``lsp``). ``documents`` holds the texts that an editor has open,
``analysis`` what the compiler says of one, ``figures`` the shapes and costs in it. Nothing here imports torch.
"""
