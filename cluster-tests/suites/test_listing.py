"""The lists are judged as they say."""

import unittest

import listing

LIST = """
# a comment
[fails] no streams
test_a.py::x*
[not run] hangs
test_b.py::y[1]
"""


class Listing(unittest.TestCase):
    def judge(self, **outcomes):
        names = {"xadd": "test_a.py::xadd", "y": "test_b.py::y[1]", "other": "test_c.py::z"}
        return listing.judge(listing.parse(LIST), {names[name]: outcome for name, outcome in outcomes.items()})

    def test_a_run_as_the_list_says_has_no_problems(self):
        verdict = self.judge(xadd="unknown command", y="not run", other="passed")
        self.assertEqual((verdict.passed, verdict.left_out, verdict.problems), (1, 2, []))

    def test_what_starts_to_pass_is_a_problem(self):
        self.assertRegex(self.judge(xadd="passed", y="not run").problems[0], "xadd passes")

    def test_what_fails_without_an_entry_is_a_problem(self):
        self.assertRegex(self.judge(xadd="no", y="not run", other="wrong").problems[0], "z fails: wrong")

    def test_an_entry_without_a_test_is_a_problem(self):
        self.assertRegex(self.judge(xadd="no").problems[0], r"y\[1\] matches no test")

    def test_headings_are_checked(self):
        for text in ("test_a", "[fails]\nx", "[maybe] reason\nx"):
            self.assertRaises(ValueError, listing.parse, text)


if __name__ == "__main__":
    unittest.main()
