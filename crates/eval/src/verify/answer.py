# One side of a verification: holds the candidate's program, and answers calls with plain data. It never sees a
# check, an expected value or a verdict.
#
# The candidate can overwrite all of this. Whatever then reaches the other side is taken as its answer.
#
# Standard input has a request in each line, standard output gets an answer for each (codec.py). A request is a
# list: what is asked for, and for
#   names      the names                                  -> for each: what it is, and a plain value's encoding
#   call       the function's name, arguments, keywords   -> the result, then the arguments as they are now
#   make       a class's name, arguments, keywords        -> the same; the object stays whatever its base is
#   of         an object or class, what is done with it, arguments, keywords    -> the same
#   next       an iterator's number, how many             -> values, and whether it has ended
# An answer is ["ok", ...], ["raised", class, arguments] or ["unclear", why].
import os


def main():
    # The candidate may replace what these names stand for.
    dumps, loads = coders()
    requests, answers = os.fdopen(os.dup(0), "r"), os.fdopen(os.dup(1), "w")
    null = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(null, stream)
    os.close(null)
    import types

    with open("candidate") as file:
        program = file.read()
    module = sys.modules["candidate"] = types.ModuleType("candidate")
    sys.modules["__main__"] = types.ModuleType("__main__")
    sys.argv = ["main.py"]
    space = module.__dict__
    space["__builtins__"] = builtins
    # A few frames more stand below the candidate's than where it runs by itself.
    sys.setrecursionlimit(sys.getrecursionlimit() + 10)
    kept, iterators = [], []
    # As Python asks for them: `bool` of an object without `__bool__` is that of its length.
    READ = {"__%s__" % kind.__name__: kind for kind in (bool, len, int, float, str, repr)}

    def say(answer):
        answers.write(dumps(answer) + "\n")
        answers.flush()

    def stay(value):
        if hasattr(type(value), "__next__") and hasattr(type(value), "__iter__"):
            iterators.append(value)
            return {"I": len(iterators) - 1}
        kept.append(value)
        return {"h": len(kept) - 1}

    def stays(tag, content):
        if tag == "h":
            return kept[content]
        if tag == "I":
            return iterators[content]
        if tag == "m":
            return space[content]
        if tag == "j":
            return iter([decode(item, stays) for item in content])
        raise NotData(tag)

    def decoded(arguments, keywords):
        names = {name: decode(value, stays) for name, value in keywords.items()}
        return [decode(value, stays) for value in arguments], names

    def described(name):
        if name not in space:
            return ["none"]
        value = space[name]
        if isinstance(value, type):
            return ["class"]
        if isinstance(value, types.ModuleType):
            return ["module"]
        if callable(value):
            return ["function"]
        return ["value", encode(value, stay)]

    def result(value, arguments):
        value = encode(value, stay)
        # What is changed in place is seen by whoever passed it.
        return ["ok", value, [encode(argument, stay) for argument in arguments]]

    def called(name, arguments, keywords):
        arguments, keywords = decoded(arguments, keywords)
        return result(space[name](*arguments, **keywords), arguments)

    def made(name, arguments, keywords):
        arguments, keywords = decoded(arguments, keywords)
        value = space[name](*arguments, **keywords)
        return ["ok", stay(value), [encode(argument, stay) for argument in arguments]]

    def operated(thing, operation, arguments, keywords):
        arguments, keywords = decoded(arguments, keywords)
        thing = decode(thing, stays)
        if operation == "get":
            value = getattr(thing, *arguments)
            return ["method"] if callable(value) and not isinstance(value, type) else result(value, ())
        if operation == "set":
            return result(setattr(thing, *arguments), ())
        if operation == "iterate":
            return result(iter(thing), ())
        if operation == "call":
            return result(thing(*arguments, **keywords), arguments)
        name, *rest = arguments
        if name in READ:
            return result(READ[name](thing), ())
        return result(getattr(thing, name)(*rest, **keywords), rest)

    def drawn(number, most):
        values = []
        iterator = iterators[number]
        try:
            while len(values) < most:
                values.append(encode(next(iterator), stay))
        except StopIteration:
            return ["ok", values, ["end"]]
        except BaseException as error:
            return ["ok", values, raised(error)]
        return ["ok", values, ["more"]]

    def raised(error):
        built_in = next((base for base in type(error).__mro__ if base.__module__ == "builtins"), Exception)
        try:
            arguments = [encode(argument, stay) for argument in error.args]
        except BaseException:
            arguments = []
        return ["raised", built_in.__name__, arguments]

    def answer(what, *asked):
        try:
            if what == "names":
                return ["ok", [described(name) for name in asked]]
            return {"call": called, "make": made, "of": operated, "next": drawn}[what](*asked)
        except NotData as error:
            return ["unclear", str(error)]
        except BaseException as error:
            return raised(error)

    try:
        exec(compile(program + "\n\n", "main.py", "exec", dont_inherit=True), space)
    except BaseException as error:
        say(raised(error))
        return
    say(["ok"])
    for line in requests:
        say(answer(*loads(line)))


try:
    main()
finally:
    # No exit handlers, no waiting for threads.
    os._exit(0)
