"""What is known of the standard library and of well-known packages: which names look outside, and at what.

Rule 1: a name stands here only if calling it in a workflow is wrong whatever its arguments, or if `EXCUSED` says when
it is not.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Mapping


def words(text: str) -> frozenset[str]:
    """The words of a text."""
    return frozenset(text.split())


def table(rule: str, names: str) -> dict[str, str]:
    """Names of one rule; `module.*` stands for everything in it."""
    return dict.fromkeys(names.split(), rule)


def under(prefix: str, names: str) -> str:
    """Names below a common prefix."""
    return " ".join(f"{prefix}.{name}" for name in names.split())


PATH = under(
    "pathlib.Path",
    "absolute chmod cwd exists expanduser glob group hardlink_to home is_block_device is_char_device is_dir is_fifo "
    "is_file is_junction is_mount is_socket is_symlink iterdir lchmod lstat mkdir open owner read_bytes read_text "
    "readlink rename replace resolve rglob rmdir samefile stat symlink_to touch unlink walk write_bytes write_text",
)
CALLS: Mapping[str, str] = {
    **table(
        "ZT101",
        under(
            "time",
            "time time_ns monotonic monotonic_ns perf_counter perf_counter_ns process_time process_time_ns thread_time "
            "thread_time_ns clock_gettime clock_gettime_ns localtime gmtime ctime asctime strftime",
        )
        + " datetime.datetime.now datetime.datetime.utcnow datetime.datetime.today datetime.date.today "
        "pendulum.now pendulum.today pendulum.tomorrow pendulum.yesterday arrow.now arrow.utcnow "
        "pandas.Timestamp.now pandas.Timestamp.utcnow pandas.Timestamp.today django.utils.timezone.now "
        "whenever.Instant.now whenever.ZonedDateTime.now timeit.default_timer timeit.timeit",
    ),
    **table("ZT102", "random.* secrets.* os.urandom os.getrandom numpy.random.* ssl.RAND_bytes"),
    **table(
        "ZT103", "uuid.uuid1 uuid.uuid4 uuid.uuid6 uuid.uuid7 uuid.uuid8 uuid.getnode ulid.* nanoid.generate"
    ),
    **table(
        "ZT104",
        under(
            "os",
            "getenv environ.* getcwd getcwdb getpid getppid getuid getgid getlogin uname cpu_count getloadavg "
            "get_terminal_size putenv unsetenv chdir",
        )
        + " platform.* locale.* getpass.* socket.gethostname socket.getfqdn builtins.input sys.stdin.* "
        "datetime.datetime.fromtimestamp datetime.date.fromtimestamp time.mktime time.tzset",
    ),
    **table(
        "ZT201",
        under(
            "os",
            "access chmod chown close fdopen fsync link listdir lstat makedirs mkdir mkfifo open pipe read readlink "
            "remove removedirs rename renames replace rmdir scandir sendfile stat statvfs symlink sync truncate umask "
            "unlink utime walk write",
        )
        + " "
        + under(
            "os.path",
            "abspath exists expanduser getatime getctime getmtime getsize isdir isfile islink ismount lexists "
            "realpath samefile",
        )
        + f" {PATH} builtins.open io.open io.FileIO io.open_code codecs.open gzip.open bz2.open lzma.open "
        "zipfile.ZipFile tarfile.open shutil.* tempfile.* glob.glob glob.iglob fileinput.* mmap.mmap sqlite3.connect "
        "dbm.open shelve.open linecache.getline linecache.getlines "
        "pandas.read_csv pandas.read_excel pandas.read_json pandas.read_parquet numpy.load numpy.save numpy.loadtxt",
    ),
    **table(
        "ZT202",
        "socket.* socketserver.* ssl.wrap_socket select.* selectors.* http.client.* http.server.* urllib.request.* "
        "ftplib.* smtplib.* imaplib.* poplib.* telnetlib.* xmlrpc.client.* webbrowser.* requests.* httpx.* "
        "aiohttp.* urllib3.* websockets.* websocket.* boto3.* botocore.* paramiko.* grpc.* redis.* pymongo.* "
        "psycopg.connect psycopg.AsyncConnection.* psycopg2.connect asyncpg.* pymysql.connect sqlalchemy.create_engine "
        "openai.* anthropic.* stripe.* kafka.* pika.* smbclient.*",
    ),
    **table(
        "ZT203",
        "subprocess.* pty.* "
        + under(
            "os",
            "system popen fork forkpty execl execle execlp execlpe execv execve execvp execvpe spawnl spawnle spawnlp "
            "spawnlpe spawnv spawnve spawnvp spawnvpe posix_spawn posix_spawnp kill killpg wait waitpid abort _exit "
            "startfile",
        ),
    ),
    **table(
        "ZT204",
        "threading.* _thread.* multiprocessing.* concurrent.futures.* asyncio.* anyio.* trio.* gevent.* eventlet.* "
        "sched.* signal.signal signal.alarm signal.setitimer signal.pause atexit.register",
    ),
    **table("ZT205", "time.sleep asyncio.sleep anyio.sleep trio.sleep gevent.sleep eventlet.sleep"),
    **table(
        "ZT206",
        "builtins.print sys.stdout.* sys.stderr.* pprint.pprint pprint.pp rich.print traceback.print_exc "
        "traceback.print_exception warnings.warn syslog.* "
        + under("logging", "debug info warning warn error exception critical log")
        + " "
        + under("logging.Logger", "debug info warning warn error exception critical fatal log")
        + " "
        + under("structlog.Logger", "debug info warning warn error exception critical fatal log msg")
        + " "
        + under("loguru.logger", "trace debug info success warning error exception critical log"),
    ),
    **table("ZT207", "zart.resource zart.open zart.serve zart.run_inline zart.open_log"),
    **table("ZT106", "builtins.id builtins.hash"),
}
"""What looks outside when it is called, and the rule that it breaks."""

READS: Mapping[str, str] = table("ZT104", "os.environ os.environb sys.argv sys.stdin")
"""What looks outside when it is read."""

RETURNS: Mapping[str, str] = {
    "logging.getLogger": "logging.Logger",
    "structlog.get_logger": "structlog.Logger",
    "structlog.getLogger": "structlog.Logger",
    "numpy.random.default_rng": "numpy.random.Generator",
}
"""What some functions give."""

PURE = words(
    under("socket", "inet_aton inet_ntoa inet_pton inet_ntop htonl htons ntohl ntohs")
    + " secrets.compare_digest httpx.URL httpx.Headers httpx.QueryParams ulid.parse ulid.from_str ulid.ULID.from_str "
    "ulid.from_bytes ulid.ULID.from_bytes ulid.from_uuid ulid.ULID.from_uuid requests.utils.quote "
    "requests.utils.unquote requests.compat.urljoin requests.compat.quote urllib.request.quote urllib.request.unquote"
)
"""What only computes, of modules whose other names look outside; the methods of what it gives, too."""

TYPES = ("openai.types.", "anthropic.types.")
"""Packages of plain data, in those that talk to the network."""

NO_EFFECT = ("Error", "Exception", "Warning", "Timeout", "Interrupt")
"""Classes that end so are errors to raise, whatever package they are of."""


def argument(call: ast.Call, position: int, keyword: str) -> ast.expr | None:
    """An argument of a call, by position or keyword; None where it is not given."""
    for given in call.keywords:
        if given.arg == keyword:
            return given.value
    return call.args[position] if len(call.args) > position else None


def is_given(call: ast.Call, position: int, keyword: str) -> bool:
    """Whether an argument is there, and is not None."""
    value = argument(call, position, keyword)
    return value is not None and not (isinstance(value, ast.Constant) and value.value is None)


def opaque(call: ast.Call) -> bool:
    """Whether a call has arguments that cannot be counted."""
    return any(isinstance(each, ast.Starred) for each in call.args) or any(
        k.arg is None for k in call.keywords
    )


EXCUSED: Mapping[str, Callable[[ast.Call], bool]] = {
    "time.localtime": lambda call: is_given(call, 0, "secs"),
    "time.gmtime": lambda call: is_given(call, 0, "secs"),
    "time.ctime": lambda call: is_given(call, 0, "secs"),
    "time.asctime": lambda call: is_given(call, 0, "t"),
    "time.strftime": lambda call: is_given(call, 1, "t"),
    "random.Random": lambda call: is_given(call, 0, "x"),
    "numpy.random.default_rng": lambda call: is_given(call, 0, "seed"),
    "numpy.random.RandomState": lambda call: is_given(call, 0, "seed"),
    "numpy.random.SeedSequence": lambda call: is_given(call, 0, "entropy"),
    "datetime.datetime.fromtimestamp": lambda call: is_given(call, 1, "tz"),
}
"""Calls that are fine with certain arguments."""

OBJECTS_EXCUSED = ("random.Random.", "numpy.random.Generator.", "numpy.random.RandomState.")
"""Methods of objects whose making was judged where they were made."""


def rule_of(name: str) -> str | None:
    """The rule that a call of this name breaks; None for none."""
    if name in CALLS:
        return CALLS[name]
    if name.endswith(NO_EFFECT) or name.startswith((*OBJECTS_EXCUSED, *TYPES)):
        return None
    if name in PURE or name.rpartition(".")[0] in PURE:
        return None
    parts = name.split(".")
    for end in range(len(parts) - 1, 0, -1):
        if (rule := CALLS.get(".".join([*parts[:end], "*"]))) is not None:
            return rule
    return None


def rule_of_call(name: str, call: ast.Call) -> str | None:
    """The rule that this call breaks; None for none, and where its arguments excuse it."""
    rule = rule_of(name)
    excuse = EXCUSED.get(name)
    return None if rule is None or (excuse is not None and (opaque(call) or excuse(call))) else rule
