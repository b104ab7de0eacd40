"""From SQL text to plans: which rows a statement reads or writes, and what that means for Redis keys.

Each module calls only modules further up in this list:

    string_constants   how string constants are spelled
    lexer              text → tokens
    plans              the result: what a statement would do to the keys of each rule
    statements         what a statement says, before its names are looked up in a catalog
    tokens             names, lists and types in a command's tokens
    canonical          tokens → text for the SQL parser
    templates          text → template and literals
    set_commands       SET, RESET and set_config()
    definitions        CREATE, ALTER, DROP
    expressions        constants and conditions in the parser's tree
    queries            tokens of a query or a write → Statement, with the SQL parser
    commands           tokens of any statement → Statement
    operands           which constants can be keys and values, by type and cast
    writes             Write, and what the catalog says of its target → WritePlan
    binding            Statement and catalog → Plan
    memo               text → plans, remembered
"""
