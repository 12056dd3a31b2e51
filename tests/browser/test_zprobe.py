import pytest
pytestmark = pytest.mark.browser
from test_course import brought_by_jupyterlab, assert_accessible
@pytest.mark.parametrize("bad", ["import ipywidgets as w\nw.IntSlider(description='n')",
  "from IPython.display import HTML\nHTML('<p style=\"color:#999\">grey on the page</p>')",
  "from IPython.display import HTML\nHTML('<img src=\"x.png\">')", "import ipywidgets as w\nw.HTML('<select><option>1</option></select>')", "1+1"])
def test_a(lab, brought_by_jupyterlab, bad):
    lab.open_cells("bad.ipynb", bad)
    lab.run_all()
    assert_accessible(lab, brought_by_jupyterlab)
