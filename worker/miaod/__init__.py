"""MI-AOD: an object detector that knows which images it should be taught next.

Yuan et al., "Multiple Instance Active Learning for Object Detection", CVPR 2021, and its authors'
code (yuantn/MI-AOD, here "the reference"). This package knows images, boxes and numbers; no
database, no HTTP.

    paper           ours                           reference
    X_L, X_U        labeled, unlabeled (datasets)  X_L, X_U
    g               `backbone` and `pyramid`       backbone, neck
    f_1, f_2        towers `f1`, `f2`              f_1_convs + f_1_retina, f_2_…
    f_r             tower `box`                    f_r_convs + f_r_retina
    f_mil           tower `mil`                    f_mil_convs + f_mil_retina
    y^f1, y^f2      sigmoid of `HeadOutputs.f1`    y_head_f_1, y_head_f_2
    y^cls, w_i      `losses.instance_weights`      y_head_cls
    l_det           l_det_cls + l_det_loc          l_det_cls, l_det_loc
    l_imgcls        l_imgcls                       l_imgcls
    l_dis           l_wave_dis                     l_wave_dis
    -l_dis          l_wave_dis_minus               l_wave_dis_minus
    lambda          `lambda_discrepancy`           param_lambda
    k               `scoring_k`                    cfg.k
    label training  stage "label"                  Label_Set_Train
    min. of l_dis   stage "min", "minimise 1/2"    Unlabel_Set_Train_Min
    max. of l_dis   stage "max", "maximise 1/2"    Unlabel_Set_Train_Max

Read `engine.py` for the training, `losses.py` for what it minimises, `scoring.py` for what becomes
of it, `config.py` for every number.
"""
