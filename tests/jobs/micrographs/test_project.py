"""RELION's project is found from a folder in it."""

from cryobridge.jobs.micrographs.project import project_of


def test_dots_go_up_from_where_a_link_leads(tmp_path):
    project = tmp_path / "disk" / "project"
    (project / "Picks").mkdir(parents=True)
    (project / "default_pipeline.star").touch()
    (tmp_path / "elsewhere").symlink_to(project / "Picks")
    assert project_of(tmp_path / "elsewhere" / ".." / "new") == project
    assert project_of(project / "Picks") == project
    assert project_of(tmp_path) is None
