"""One file for each first word of the command line; `configuration.parser.COMMANDS` names them.

Belongs here: reading the words that follow, calling what does the work, printing. What two of them need goes into a
room below. Nothing imports this one but the table, by name, when the word is typed.
"""
