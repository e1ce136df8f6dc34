"""Tools that agents call. Each is a callable object of `protocols.Tool`'s shape: a name, a description, a JSON schema
of its arguments, and an answer in text that begins with `error` where the call failed. A new tool is one file here and
one line in `TOOLS`."""

from troupe.tools.calculator import Calculator
from troupe.tools.dense import DenseSearchTool
from troupe.tools.python import PythonTool
from troupe.tools.run_tests import RunTests
from troupe.tools.search import CiteTool, ReadTool, SearchTool

__all__ = ["TOOLS", "Calculator", "CiteTool", "DenseSearchTool", "PythonTool", "ReadTool", "RunTests", "SearchTool"]

TOOLS = {
    "calculator": Calculator,
    "cite": CiteTool,
    "dense_search": DenseSearchTool,
    "python": PythonTool,
    "read": ReadTool,
    "run_tests": RunTests,
    "search": SearchTool,
}
