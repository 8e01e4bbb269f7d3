"""The folder an export is put into: what in it is a person's and stays, what is ours and is replaced as one."""
