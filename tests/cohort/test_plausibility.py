import pandas as pd

from sarc_ray.cohort.plausibility import check_plausibility


def test_gait_speeds_in_km_h_are_noticed():
    kilometres = pd.DataFrame({"gait_speed_m_s": [3.0, 3.6] * 15})
    (finding,) = check_plausibility(kilometres)
    assert (finding.severity, finding.column, finding.count) == ("warning", "gait_speed_m_s", 30)
    assert "divide by 3.6" in finding.remedy
    assert check_plausibility(kilometres / 3.6) == []
