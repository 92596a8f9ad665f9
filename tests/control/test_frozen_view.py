"""A camera whose pixels stay the same: frozen once the arm has moved, by distance or by turn, and not before."""

import numpy as np
import pytest

from deer_ros.control.frozen_view import LEVER_M, FrozenView
from deer_ros.control.kinematics import ArmGeometry

HOME = np.array((-1.21779206, 1.03987646, 2.11978261, -2.34205014, -0.87015947, 1.64119353, 0.55344866))
GEOMETRY = ArmGeometry()


def picture(value, shape=(5, 6, 3)):
    return np.full(shape, value, np.uint8)


def turned(joint, angle_rad):
    joints = HOME.copy()
    joints[joint] += angle_rad
    return joints


def way_m(joints):
    return float(np.linalg.norm(GEOMETRY.tcp_pose(joints)[0] - GEOMETRY.tcp_pose(HOME)[0]))


@pytest.fixture
def view():
    return FrozenView(GEOMETRY)


def test_the_way_counts_from_where_the_pixels_last_changed(view):
    assert view.moved_m(1, picture(1), HOME) == 0.0
    assert view.moved_m(2, picture(1), HOME) == 0.0
    moved = turned(0, 0.1)
    assert way_m(moved) > 0.03
    assert view.moved_m(3, picture(1), moved) == pytest.approx(way_m(moved) + LEVER_M * 0.1, abs=1e-9)
    assert view.moved_m(4, picture(2), moved) == 0.0
    assert view.moved_m(5, picture(2), moved) == 0.0
    assert view.moved_m(6, picture(2), HOME) > 0.03


def test_one_pixel_is_a_change(view):
    view.moved_m(1, picture(1), HOME)
    changed = picture(1)
    changed[4, 5, 2] += 1
    assert view.moved_m(2, changed, turned(0, 0.2)) == 0.0


def test_an_arm_that_comes_back_does_not_make_it_good(view):
    view.moved_m(1, picture(1), HOME)
    far = view.moved_m(2, picture(1), turned(0, 0.2))
    assert view.moved_m(3, picture(1), HOME) == far


def test_a_turn_without_way_counts_by_its_lever(view):
    view.moved_m(1, picture(1), HOME)
    spun = turned(6, 0.5)
    assert way_m(spun) < 1e-9
    assert view.moved_m(2, picture(1), spun) == pytest.approx(0.5 * LEVER_M)


def test_the_same_stamp_again_proves_nothing(view):
    view.moved_m(1, picture(1), HOME)
    assert view.moved_m(1, picture(1), turned(0, 0.5)) == 0.0
    view.moved_m(2, picture(1), turned(0, 0.5))
    assert view.moved_m(2, picture(9), HOME) > 0.1, "and changes no judgement either"


def test_another_size_is_another_picture(view):
    view.moved_m(1, picture(1), HOME)
    assert view.moved_m(2, picture(1, (6, 5, 3)), turned(0, 0.5)) == 0.0
