"""What each transaction and each due moment does to a Draft, one module a domain.

The rule modules (clearing/rules) do not know each other; they meet here. A handler checks first, in the documented
precedence of reject codes, and changes the draft last: a refused transaction leaves no trace.
"""
