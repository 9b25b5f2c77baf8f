"""Quotes that are not closed, or not where they may be: no parser may make fewer rows of the lines."""

import pytest

from ml_platform_tests.cases.case import Case, csv

NOTE = {"note": "string", "size": "int32"}
UNREADABLE = {"objects_are_readable": "a quoted field is not closed"}
CASES = [
    Case("apple/turicreate#1692", "the line with the quote and all after it are gone", {"a": "string", "b": "string"},
         {"a.csv": csv("a,b", '"a","b"', '"c","d')}, red=UNREADABLE),
    Case("apple/turicreate#1692", "blanks before quotes belong to the field", {"a": "string", "b": "string"},
         {"a.csv": csv("a,b", '"a", "b"')}, rows=[("a", ' "b"')]),
    Case("tidyverse/vroom#484", "a table without rows", {"a": "string", "b": "string", "c": "string"},
         {"a.csv": csv("a,b,c", "foo,bar,x", 'bar,"ba,z', "1,2,3")}, red=UNREADABLE),
    Case("osiegmar/FastCSV#173", "closed at the end of the file", {"a": "string", "b": "string"},
         {"a.csv": csv("a,b", '"val1,val2', "val3,val4")}, red=UNREADABLE),
    Case("cldf/csvw#52", "a typographic quote closes nothing", {"note": "string"},
         {"a.csv": csv("note", '"i am an unclosed comment”', "lorem")}, red=UNREADABLE),
    Case("pandas-dev/pandas#22661", "some lines are skipped", NOTE,
         {"a.csv": csv("note,size", "abc,5", '"abc",4', '"error,3', "x,2")}, red=UNREADABLE),
    Case("NVIDIA/cudf#2398", "a quote in the middle of a field opens it", {"path": "string", "code": "int32"},
         {"a.csv": csv("path,code", "/abc,200", '/images",500', '/a"b"c,200')},
         rows=[("/abc", 200), ('/images"', 500), ('/a"b"c', 200)]),
    Case("JoshClose/CsvHelper#308", "two quotes at the start of the next line", {"a": "string", "b": "string"},
         {"a.csv": csv("a,b", "CARRS,x", '"CARRS\n"",y', "CARRS,z")}, red=UNREADABLE),
    Case("tototoshi/scala-csv#18", "the next quote closes it, so that lines between are one field", NOTE,
         {"a.csv": csv("note,size", "x,1", '"12 pipe,5', "x,6", 'pipe 14",7', "x,8")}, rows=[("x", 1), ("x", 8)],
         red={"values_fit_their_types": "1 of 3 rows; a line in quotes goes on over 3 lines that look like records"}),
    Case("pandas-dev/pandas#3853", "the rest of the object goes on without the file", NOTE,
         {"a.csv": csv("note,size", "x,1"), "b.csv": csv("note,size", '"y,2')}, rows=[("x", 1)], red=UNREADABLE),
    Case("halogenandtoast/excelsior#8", "the last field of the header", {"a": "string", "b": "string"},
         {"a.csv": 'id,at,a,"b\n1,2024-03-01,x,y\n'}, red={"objects_are_readable": "line 1: a quoted field is not closed"}),
]  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=str)
def test_quotes(case: Case) -> None:
    case.hold()
