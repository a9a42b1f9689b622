# The other side of a verification: runs the published checks, without any of the candidate's code. What the checks
# know by the candidate's names are stand-ins that pass calls on; what comes back is decoded here into values of
# Python's own types, and those are compared.
#
# Standard input has the answers, standard output takes the requests (answer.py), standard error the verdict, in one
# line: `verified`, `failed WHY` where a check does not hold, `unclear WHY` where its outcome hangs on something that
# is no plain data. The file `job` has, as JSON, `names` and `reference` (a text): what these define is the program's,
# every other name is the checks' own; `given`, code that the checks may use; and `checks`, or `calls` (calls.py).
import _ast
import os

# Bytes of one answer.
LONGEST = 64 << 20
# Values that are drawn at once from an iterator of the program's, and in all from one of the checks'.
DRAWN, MOST_DRAWN = 64, 1_000_000

dumps, loads = coders()

# Why the outcome is unclear. What a check does with an exception makes no difference.
unclear = []


class Unclear(BaseException):
    """The outcome hangs on something that is no plain data."""


def cannot(why):
    unclear.append(why)
    raise Unclear(why)


# Operations that an honest object answers alike until something else is done.
READING = ("get", "iterate", "read")


class Peer:
    """The program, at the other end of the pipes."""

    def __init__(self, answers, requests):
        self.answers, self.requests = answers, requests
        # Counts what may change the program's objects.
        self.changes = 0
        # Whether the reference has classes of its own, so that their objects are part of the task.
        self.has_classes = False

    def ask(self, *request):
        """Sends a request if there is one, and reads the answer."""
        try:
            if request:
                self.requests.write(dumps(request) + "\n")
                self.requests.flush()
            line = self.answers.readline(LONGEST)
            answer = loads(line) if line.endswith("\n") else None
        except BaseException as error:
            cannot("an answer that cannot be read: %s" % type(error).__name__)
        if answer is None:
            cannot("the program ended, or its answer is too long")
        if type(answer) is not list or not answer:
            cannot("an answer that is none")
        if answer[0] == "unclear":
            cannot(str(answer[1:])[:200])
        if answer[0] == "raised":
            raise self.error(answer)
        return answer[1:]

    def error(self, answer):
        """The exception that an answer tells of. Those that end an iteration would do so in the check."""
        try:
            _, name, arguments = answer
            kind = vars(builtins).get(text(name))
            arguments = [self.decode(argument) for argument in arguments]
            if not (isinstance(kind, type) and issubclass(kind, BaseException)):
                kind = Exception
            if issubclass(kind, (StopIteration, StopAsyncIteration)):
                kind = RuntimeError
            return kind(*arguments)
        except BaseException:
            return Exception("of the program's own class")

    def result(self, answer, sent=()):
        """The value of an answer; arguments that the program changed are changed here."""
        try:
            value, *now = answer
            value = self.decode(value)
            if now and sent:
                for argument, changed in zip(sent, now[0]):
                    restore(argument, self.decode(changed))
        except BaseException as error:
            cannot("an answer that is no value: %s" % type(error).__name__)
        return value

    def call(self, name, arguments, keywords, what="call"):
        self.changes += 1
        return self.result(self.ask(what, name, *self.sent(arguments, keywords)), arguments)

    def operate(self, thing, operation, arguments, keywords={}):
        self.changes += operation not in READING
        answer = self.ask("of", thing, operation, *self.sent(arguments, keywords))
        # The first argument of a special method is its name.
        return answer, arguments[1:] if operation == "method" else arguments

    def sent(self, arguments, keywords):
        try:
            named = {name: encode(value, self.stay) for name, value in keywords.items()}
            return [encode(value, self.stay) for value in arguments], named
        except NotData as error:
            cannot("%s as an argument" % error)

    def stay(self, value):
        kind = type(value)
        if kind in (Object, Function, Class, Iterator):
            return value._reference
        if hasattr(kind, "__next__"):
            drawn = []
            for item in value:
                drawn.append(encode(item, self.stay))
                if len(drawn) > MOST_DRAWN:
                    raise NotData("an endless iterator")
            return {"j": drawn}
        raise NotData("a value of the type %s" % kind.__name__)

    def decode(self, data):
        return decode(data, self.stays)

    def stays(self, tag, content):
        if tag == "h" and type(content) is int:
            return Object(self, {"h": content}, False)
        if tag == "I" and type(content) is int:
            return Iterator(self, content)
        raise NotData("an unknown kind of value")


def restore(old, new):
    """Makes `old` what `new` is, where values of its type change in place."""
    kind = type(old)
    if kind is not type(new):
        return new
    if kind is list:
        old[:] = [restore(*pair) for pair in zip(old, new)] + new[len(old):]
    elif kind is tuple and len(old) == len(new):
        for pair in zip(old, new):
            restore(*pair)
    elif kind is dict:
        merged = {key: restore(old[key], value) if key in old else value for key, value in new.items()}
        old.clear()
        old.update(merged)
    elif kind is set:
        old.clear()
        old.update(new)
    elif kind is bytearray:
        old[:] = new
    elif kind.__module__ == "collections" and kind.__name__ in ("deque", "Counter", "OrderedDict"):
        old.clear()
        (old.extend if kind.__name__ == "deque" else old.update)(new)
    elif kind not in (Object, Function, Class, Iterator):
        return new
    return old


class Function:
    """Stands for a function of the program's."""

    def __init__(self, peer, name):
        self.__dict__.update(_peer=peer, _reference={"m": name}, __name__=name)

    def __call__(self, *arguments, **keywords):
        return self._peer.call(self.__name__, arguments, keywords)


class Class(Function):
    """Stands for a class of the program's."""

    def __call__(self, *arguments, **keywords):
        made = self._peer.call(self.__name__, arguments, keywords, "make")
        if type(made) is Object:
            made.__dict__["_made"] = True
        return made

    def __getattr__(self, name):
        return attribute(self._peer, self._reference, name, True)

    def __setattr__(self, name, value):
        self._peer.operate(self._reference, "set", (name, value))

    def __instancecheck__(self, value):
        cannot("whether a value is of the program's class")

    __subclasscheck__ = __instancecheck__


def attribute(peer, reference, name, made):
    """An attribute of an object of the program's: a value, or a method. What a method of an object that the checks
    did not make themselves answers to arguments is unclear: it may have been given the expected value."""
    if name.startswith("__") and name.endswith("__"):
        raise AttributeError(name)
    answer, _ = peer.operate(reference, "get", (name,))
    if answer:
        value = peer.result(answer)
        if is_call(value):
            cannot("an attribute that stands for a built-in function")
        return value

    def method(*arguments, **keywords):
        if not made and (arguments or keywords or not peer.has_classes):
            cannot("a method of an object that the program returned")
        answer, sent = peer.operate(reference, "method", (name, *arguments), keywords)
        return peer.result(answer, sent)

    return method


def is_call(value):
    """Whether a value runs code here when it is called, other than a type."""
    return callable(value) and type(value) not in (type, Object)


class Object:
    """Stands for an object of a class of the program's."""

    def __init__(self, peer, reference, made):
        self.__dict__.update(_peer=peer, _reference=reference, _made=made, _known={}, _changes=0)

    def _once(self, what, ask):
        """What `ask` gives. Of an object that the program returned, the same until something is changed: one that is
        another number each time would satisfy what no number does."""
        if self._made:
            return ask()
        if self._changes != self._peer.changes:
            self.__dict__.update(_known={}, _changes=self._peer.changes)
        if what not in self._known:
            self._known[what] = ask()
        return self._known[what]

    def __getattr__(self, name):
        return self._once(name, lambda: attribute(self._peer, self._reference, name, self._made))

    def __setattr__(self, name, value):
        self._peer.operate(self._reference, "set", (name, value))

    def __iter__(self):
        if not self._made:
            cannot("the items of an object that the program returned")
        return self._peer.result(self._peer.operate(self._reference, "iterate", ())[0])

    def __call__(self, *arguments, **keywords):
        if not self._made:
            cannot("a call of an object that the program returned")
        answer, sent = self._peer.operate(self._reference, "call", arguments, keywords)
        return self._peer.result(answer, sent)


def read(name):
    def method(self):
        return self._once(name, lambda: self._peer.result(self._peer.operate(self._reference, "read", (name,))[0]))

    return method


def passed_on(name):
    def method(self, *arguments):
        if not self._made:
            cannot("the items of an object that the program returned")
        answer, sent = self._peer.operate(self._reference, "method", (name, *arguments))
        return self._peer.result(answer, sent)

    return method


def deciding(name):
    def method(self, *_):
        cannot("%s of an object of the program's own class" % name)

    return method


# What gives plain data and is told nothing.
for name in "bool len int float str repr".split():
    setattr(Object, "__%s__" % name, read("__%s__" % name))
# What is told something, which of an object that the checks made themselves is no expected value.
for name in "getitem setitem delitem".split():
    setattr(Object, "__%s__" % name, passed_on("__%s__" % name))
# What decides an outcome itself, or is told the other operand.
for name in """eq ne lt le gt ge hash contains add radd iadd sub rsub isub mul rmul imul truediv rtruediv floordiv
    rfloordiv mod rmod divmod rdivmod pow rpow and rand or ror xor rxor lshift rshift neg pos abs invert round trunc
    floor ceil index complex matmul rmatmul enter exit reversed format instancecheck""".split():
    setattr(Object, "__%s__" % name, deciding("__%s__" % name))
del name


class Iterator:
    """Stands for an iterator of the program's: what it gives is drawn when it is needed."""

    def __init__(self, peer, number):
        self._peer, self._number, self._reference = peer, number, {"I": number}
        self._drawn, self._state = [], None

    def __iter__(self):
        return self

    def __next__(self):
        if not self._drawn and self._state in (None, "more"):
            try:
                values, state = self._peer.ask("next", self._number, DRAWN)
                self._drawn = [self._peer.decode(value) for value in values][::-1]
                self._state = state[0] if state[0] in ("more", "end") else self._peer.error(state)
            except Exception as error:
                cannot("an iterator that cannot be read: %s" % type(error).__name__)
            if not self._drawn and self._state == "more":
                cannot("an iterator that gives nothing")
        if self._drawn:
            return self._drawn.pop()
        if self._state != "end":
            error, self._state = self._state, "end"
            raise error
        raise StopIteration


def nodes(tree):
    """All nodes of a syntax tree."""
    waiting = [tree]
    while waiting:
        node = waiting.pop()
        if isinstance(node, list):
            waiting.extend(node)
        elif isinstance(node, _ast.AST):
            yield node
            waiting.extend(getattr(node, field, None) for field in node._fields)


def parsed(code):
    return compile(code, "check.py", "exec", _ast.PyCF_ONLY_AST)


DEFINED = (_ast.FunctionDef, _ast.AsyncFunctionDef, _ast.ClassDef)


def bound_names(found):
    """Names that are bound by any of these nodes."""
    names = set()
    for node in found:
        if isinstance(node, DEFINED):
            names.add(node.name)
        elif isinstance(node, _ast.Name) and not isinstance(node.ctx, _ast.Load):
            names.add(node.id)
        elif isinstance(node, _ast.arg):
            names.add(node.arg)
        elif isinstance(node, _ast.alias):
            names.add((node.asname or node.name).partition(".")[0])
        elif isinstance(node, _ast.ExceptHandler) and node.name:
            names.add(node.name)
    return names


class Reference:
    """What a text defines at its top level."""

    def __init__(self, code):
        self.names, self.classes, self.imports = set(), set(), []
        try:
            body = parsed(code).body
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            body = []
        for statement in body:
            if isinstance(statement, (_ast.Import, _ast.ImportFrom)):
                self.imports.append(statement)
            elif isinstance(statement, DEFINED):
                self.names.add(statement.name)
                if isinstance(statement, _ast.ClassDef):
                    self.classes.add(statement.name)
            else:
                self.names |= bound_names(nodes(statement))


def execute(statements, space):
    module = parsed("")
    module.body = statements
    exec(compile(module, "check.py", "exec", dont_inherit=True), space)


def own_module(name, space):
    """Binds a module of the library; whether it is one."""
    known = getattr(sys, "stdlib_module_names", None)
    if known is not None and name not in known:
        return False
    try:
        space[name] = __import__(name)
    except ImportError:
        return False
    return True


def given(code, space):
    """Runs what a task gives, which ends where the body of a function is to begin or has begun. Returns the names
    that it gives to the checks, and those of that function, which is the program's."""
    for end in ("\n", "    pass\n", "\n    pass\n"):
        try:
            program = compile(code + end, "given.py", "exec", dont_inherit=True)
        except (SyntaxError, ValueError):
            continue
        before = set(space)
        exec(program, space)
        last = parsed(code + end).body[-1:]
        asked = {statement.name for statement in last if isinstance(statement, DEFINED)}
        return set(space) - before - asked, asked
    return set(), set()


def fill(space, job, checks, peer):
    """Gives the checks the names that they use."""
    reference = Reference(job["reference"])
    peer.has_classes = bool(reference.classes)
    for statement in reference.imports:
        try:
            execute([statement], space)
        except ImportError:
            pass
    kept, asked = given(job["given"], space)
    found = [node for check in checks for node in nodes(check)]
    used = {node.id for node in found if isinstance(node, _ast.Name)}
    of_program = (reference.names - kept | asked | set(job["names"])) & used
    unknown = used - of_program - bound_names(found) - set(space) - set(vars(builtins))
    wanted = sorted(of_program | {name for name in unknown if not own_module(name, space)})
    if not wanted:
        return
    (described,) = peer.ask("names", *wanted)
    for name, (kind, *value) in zip(wanted, described):
        if kind == "class" and (name in reference.classes if reference.names else name[:1].isupper()):
            space[name] = Class(peer, name)
        elif kind in ("class", "function"):
            space[name] = Function(peer, name)
        elif kind == "value":
            space[name] = peer.result(value)
            if is_call(space[name]) or isinstance(space[name], type):
                cannot("a name that stands for a built-in")


def verdict(job, peer):
    peer.ask()
    space = {"__name__": "check", "__builtins__": builtins}
    if "calls" in job:
        dataset, name, tolerance = job["calls"]
        with open("data", "rb") as file:
            data = file.read()
        # The arguments are not looked at again.
        space[name] = lambda *arguments: peer.result(peer.ask("call", name, *peer.sent(arguments, {})))
        # Twice the time: the calls pass through pipes, and one interpreter has judged the time.
        calling(dataset, name, tolerance, data, [None], 2.0, True)(space)
    else:
        checks = [parsed(check) for check in job["checks"]]
        fill(space, job, checks, peer)
        for check in checks:
            exec(compile(check, "check.py", "exec", dont_inherit=True), space)


def check():
    answers, requests, out = os.fdopen(os.dup(0), "r"), os.fdopen(os.dup(1), "w"), os.dup(2)
    null = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(null, stream)
    with open("job") as file:
        job = loads(file.read())
    try:
        verdict(job, Peer(answers, requests))
        said = "verified"
    except BaseException as error:
        name = type(error).__name__
        said = "failed " + name
    if unclear:
        said = "unclear " + " ".join(unclear[0].split())[:300]
    os.write(out, (said + "\n").encode("utf-8", "replace"))
    # No exit handlers.
    os._exit(0)
